// A line per test file, the failures in full, and one closing line that machines can read: `N passed, N failed, N skipped`.
import { Transform } from 'node:stream';
import { Parser } from 'tap-parser';

/** tap's own remarks, which say nothing that the lines per file do not. */
const NOISE = /^# (Subtest|time=|passing|failing|No coverage|{ total)/;

export default class ClosingLine extends Transform {
  #parser = new Parser();
  #failures = [];
  #passed = 0;
  #failed = 0;
  #skipped = 0;

  constructor() {
    super();
    this.#watch(this.#parser, []);
    this.#parser.on('complete', ({ ok, bailout }) => {
      for (const failure of this.#failures) this.push(`\nnot ok ${failure}\n`);
      if (bailout) this.push(`\nbailed out: ${bailout}\n`);
      // A run can fail without a failed assertion: a plan not met, a file that could not start.
      if (!ok && this.#failed === 0) this.#failed = 1;
      this.push(`\n${this.#passed} passed, ${this.#failed} failed, ${this.#skipped} skipped\n`);
    });
  }

  /** `path` names the tests above this parser; that of a file is the only one with a single name. */
  #watch(parser, path) {
    let child = null;
    parser.on('child', (inner) => {
      child = inner;
      this.#watch(inner, [...path, inner.name]);
    });
    parser.on('assert', ({ ok, skip, todo, name, diag }) => {
      // The line that sums up a subtest repeats what its own assertions have said, unless it had none.
      const isSummary = child !== null && child.count > 0;
      const childFailed = child?.fail > 0;
      child = null;
      if (isSummary && (ok || childFailed)) return;
      if (skip) this.#skipped += 1;
      else if (ok || todo) this.#passed += 1;
      else {
        this.#failed += 1;
        this.#failures.push(`${[...path, name].join(' > ')}\n${diag ? JSON.stringify(diag, null, 2) : ''}`);
      }
    });
    parser.on('comment', (comment) => {
      if (!NOISE.test(comment.trim())) this.push(comment);
    });
    if (path.length !== 1) return;
    parser.on('complete', ({ ok, time }) => this.push(`${ok ? 'ok' : 'NOT OK'} ${path[0]} (${Math.round((time ?? 0) / 100) / 10} s)\n`));
  }

  _transform(chunk, _encoding, callback) {
    this.#parser.write(chunk);
    callback();
  }

  _flush(callback) {
    this.#parser.end();
    callback();
  }
}
