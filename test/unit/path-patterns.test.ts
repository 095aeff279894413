// A pattern of paths fits whatever a plugin might take for such a path, and nothing else.
import t from 'tap';
import { compilePattern, fits, patternProblem, readPath } from '../../protocol/path-patterns.js';

const isFit = (pattern: string, path: string): boolean => fits(compilePattern(pattern), readPath(path));

t.test('segments are literal, any one, or any rest', async (t) => {
  const cases: [pattern: string, fitting: string[], other: string[]][] = [
    ['/items', ['/items', '/items/', '/items?x=/a', '/items#x'], ['/', '/item', '/itemsandmore', '/items/1', '/a/items']],
    ['/items/*', ['/items/1', '/items/1/', '/items/a%2Fb', '/items/', '/items/1?a/b/c'], ['/items', '/items/1/2', '/other/1']],
    ['/items/**', ['/items', '/items/', '/items/1', '/items/1/2/3', '/items?x'], ['/', '/itemsandmore', '/other/items']],
    ['/a/*/c', ['/a/b/c', '/a/*/c', '/a//c'], ['/a/c', '/a/b/d', '/a/b/c/d']],
    ['/**', ['/', '/a', '//', '/a/b?c'], []],
  ];
  for (const [pattern, fitting, other] of cases) {
    for (const path of fitting) t.ok(isFit(pattern, path), `${pattern} fits ${path}`);
    for (const path of other) t.notOk(isFit(pattern, path), `${pattern} does not fit ${path}`);
  }
});

t.test('a path that is written in another way is the same path', async (t) => {
  const ways = [
    '/items/admin', '/items/admin/', '/items//admin', '//items/admin', '/items/%61dmin', '/%69tems/admin', '/items/ADMIN', '/Items/Admin', '/items/%41dmin', '/items/admin;a=b', '/items;v=1/admin',
    '/items/./admin', '/items/x/../admin', '/items\\admin', '/items%2Fadmin', '/items%2fadmin', '/items/%2e/admin', '/items/x/%2E%2E/admin', '/items/admin%2F', '/items/admin?x=1', '/items/admin#x', '/items/admin;', '/items/admin%3Fx', '/items/admin%23x', '/items/%61dmin/%zz/..',
  ];
  for (const path of ways) t.ok(isFit('/items/admin', path), path);
  for (const path of ['/items/admi', '/items/admins', '/items/%2561dmin', '/items/a/dmin']) t.notOk(isFit('/items/admin', path), path);
});

t.test('what is no pattern is refused with a reason', async (t) => {
  for (const pattern of ['/items', '/items/*', '/**', '/*', '/a/*/c/**', '/caf\u00e9', '/a.b~c-d_e', '/a@b:c', '/a'.repeat(128)]) t.equal(patternProblem(pattern), null, pattern);
  t.ok(isFit('/a'.repeat(128), '/a'.repeat(128)), 'the longest one fits');
  t.notOk(isFit('/a'.repeat(128), '/a'.repeat(129)), 'and nothing longer');
  for (const pattern of ['', 'items', '/', '/items/', '//items', '/**/x', '/a*', '/a/b**', '/a?b', '/a#b', '/a;b', '/a%20b', '/a b', '/a\\b', '/./a', '/a/..', '/a\0', `/${'a'.repeat(256)}`]) {
    t.type(patternProblem(pattern), 'string', JSON.stringify(pattern));
  }
});

t.test('the longest path is read in no time, however it is made', async (t) => {
  for (const piece of ['/', '/..', '/a/..', '%2f', ';', '/%', '\\', '/a;']) {
    const path = `/${piece.repeat(16_384 / piece.length)}`;
    const begin = performance.now();
    for (let i = 0; i < 10; i += 1) isFit('/a/*/b/**', path);
    t.ok(performance.now() - begin < 1_000, `${piece} in ${Math.round(performance.now() - begin)} ms`);
  }
});
