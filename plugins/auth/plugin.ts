// Lets only those write items who have a key: an example of a guard for another plugin.
import { definePlugin } from 'bulkhead/protocol';
import { guardWrites } from './middleware.js';
import { Keys } from './services.js';

let keys: Keys;

export default definePlugin({
  name: 'auth',
  version: '1.0.0',
  description: 'Asks for an API key where items are written',
  interceptors: [guardWrites(() => keys)],
  init({ config }) {
    keys = new Keys(config.KEYS);
  },
});
