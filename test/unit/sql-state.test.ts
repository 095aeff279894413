// What an error says about the database: away, passing, or the plugin's own doing.
import t from 'tap';
import { isAway, isPassing, sqlState } from '../../kernel/database/sql-state.js';
import { BulkheadError } from '../../protocol/errors.js';

const by = (code: string): Error => Object.assign(new Error('x'), { code });

t.test('a SQLSTATE is told from the codes of Node', async (t) => {
  for (const code of ['42501', '57P01', 'XX000', 'P0001', 'HV00A']) t.equal(sqlState(by(code)), code);
  for (const code of ['EPIPE', 'ECONNREFUSED', 'ENOENT', 'EPERM', 'ABORT_ERR', '']) t.equal(sqlState(by(code)), '', code);
  t.equal(sqlState(new Error('Connection terminated unexpectedly')), '');
  t.equal(sqlState(new BulkheadError('DATABASE_UNAVAILABLE', { reason: 'x' }, { cause: by('57P03') })), '57P03', 'also behind an error of ours');
  t.equal(sqlState(new BulkheadError('DATABASE_UNAVAILABLE', { reason: 'x' })), '');
});

t.test('only who says nothing, or comes or goes, is away', async (t) => {
  for (const code of ['EPIPE', 'ECONNREFUSED', '08006', '57P01', '57P02', '57P03']) t.ok(isAway(by(code)) && isPassing(by(code)), code);
  for (const code of ['28P01', '28000', '42501', '53300', '58P01', '22023']) t.notOk(isAway(by(code)), code);
});

t.test('what may succeed a little later passes', async (t) => {
  for (const code of ['40001', '40P01', '53300', '53100', '55P03']) t.ok(isPassing(by(code)), code);
  for (const code of ['23505', '23503', '42601', '42P01', '28P01', 'P0001', '22012', '57014']) t.notOk(isPassing(by(code)), code);
});
