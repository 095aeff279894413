// tap's terse output plus one closing line that machines can read: `N passed, N failed, N skipped`.
import { Transform } from 'node:stream';
import { Parser } from 'tap-parser';

export default class ClosingLine extends Transform {
  #parser = new Parser();
  #failures = [];

  constructor() {
    super();
    this.#parser.on('child', (child) => this.#watch(child, []));
    this.#parser.on('complete', ({ ok, pass, fail, skip, bailout }) => {
      for (const failure of this.#failures) this.push(`\nnot ok ${failure}\n`);
      if (bailout) this.push(`\nbailed out: ${bailout}\n`);
      this.push(`\n${pass} passed, ${fail + (ok || fail > 0 ? 0 : 1)} failed, ${skip} skipped\n`);
    });
  }

  #watch(parser, path) {
    parser.on('child', (child) => this.#watch(child, [...path, parser.name]));
    parser.on('assert', ({ ok, skip, todo, name, diag }) => {
      if (!ok && !skip && !todo && !diag?.['child']) this.#failures.push(`${[...path.slice(1), parser.name, name].join(' > ')}\n${JSON.stringify(diag, null, 2) ?? ''}`);
    });
    parser.on('complete', ({ ok, pass, fail, time }) => {
      if (path.length === 0) this.push(`${ok ? 'ok' : 'NOT OK'} ${parser.name} (${pass} passed${fail > 0 ? `, ${fail} failed` : ''}, ${Math.round((time ?? 0) / 100) / 10} s)\n`);
    });
    parser.on('comment', (comment) => this.push(comment));
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
