// Calls the adder as often as it can, for the benchmark of calls.
import { definePlugin } from 'bulkhead/protocol';
import { drive, type DriveQuery } from '../../drive.js';

export default definePlugin({
  name: 'caller',
  version: '1.0.0',
  requires: ['adder.add'],
  routes(app, { services }) {
    const add = services.get('adder.add');
    app.get<{ Querystring: DriveQuery }>('/drive', ({ query }) => drive(add, Number(query.outstanding), Number(query.ms)));
  },
});
