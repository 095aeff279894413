// Provides the smallest service, for the benchmark of calls.
import { definePlugin } from 'bulkhead/protocol';

declare module 'bulkhead/protocol' {
  interface ServiceMap { 'adder.add': (a: number, b: number) => number }
}

export default definePlugin({
  name: 'adder',
  version: '1.0.0',
  services: { 'adder.add': (a, b) => a + b },
});
