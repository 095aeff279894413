// Questions of a host to the kernel, each by a number of its own, that wait for their answer. Must not know what was asked.
import type { PlainError } from '../../protocol/errors.js';
import { revive } from './revive.js';

interface Question {
  resolve(): void;
  reject(error: Error): void;
}

export class Answers {
  readonly #questions = new Map<number, Question>();
  #lastRef = 0;

  /** The kernel answers all; when it ends, so does this worker. */
  ask(send: (ref: number) => void): Promise<void> {
    const ref = (this.#lastRef += 1);
    send(ref);
    return new Promise((resolve, reject) => this.#questions.set(ref, { resolve, reject }));
  }

  settle(ref: number, error: PlainError | null): void {
    const question = this.#questions.get(ref);
    this.#questions.delete(ref);
    if (error === null) question?.resolve();
    else question?.reject(revive(error));
  }
}
