// pg-boss. Its worker polls; half a second is the shortest it allows, and LISTEN/NOTIFY shortens that where it is on.
import pg from 'pg';
import { PgBoss } from 'pg-boss';
import { main, payload, seen } from './adapter.mjs';

const QUEUE = 'noop';
const BULK = 10_000;

await main(async (url) => {
  const pool = new pg.Pool({ connectionString: url, max: 4 });
  const boss = new PgBoss({ connectionString: url, max: 20, supervise: false, schedule: false, useListenNotify: true });
  boss.on('error', (error) => { throw error; });
  await boss.start();
  await boss.createQueue(QUEUE, { notify: true });
  return {
    setup: async () => {},
    empty: () => boss.deleteAllJobs(QUEUE),
    enqueue: () => boss.send(QUEUE, payload()),
    bulk: async (jobs) => {
      for (let n = 0; n < jobs; n += BULK) {
        await boss.insert(QUEUE, Array.from({ length: BULK }, () => ({ data: payload() })));
      }
    },
    work: (many) => boss.work(
      QUEUE,
      many
        ? { batchSize: 2_000, pollingIntervalSeconds: 0.5, burstWhenBatchFull: true, localConcurrency: 2 }
        : { batchSize: 16, pollingIntervalSeconds: 0.5 },
      async (jobs) => { for (const _ of jobs) seen.one(); },
    ),
    left: async () => {
      const { rows } = await pool.query("select count(*)::int as left from pgboss.job where name = $1 and state < 'completed'", [QUEUE]);
      return rows[0].left;
    },
  };
});
