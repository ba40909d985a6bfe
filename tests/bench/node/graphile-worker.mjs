// graphile-worker, with its local queue and batched completions where a backlog waits.
import { Logger, makeWorkerUtils, run } from 'graphile-worker';
import pg from 'pg';
import { main, payload, seen } from './adapter.mjs';

const BULK = 10_000;
const logger = new Logger(() => () => {});

await main(async (url) => {
  const pool = new pg.Pool({ connectionString: url, max: 20 });
  const utils = await makeWorkerUtils({ pgPool: pool, logger });
  return {
    setup: () => utils.migrate(),
    empty: () => pool.query('truncate graphile_worker._private_jobs cascade'),
    enqueue: () => utils.addJob('noop', payload()),
    bulk: async (jobs) => {
      for (let n = 0; n < jobs; n += BULK) {
        await utils.addJobs(Array.from({ length: BULK }, () => ({ identifier: 'noop', payload: payload() })));
      }
    },
    work: (many) => run({
      pgPool: pool,
      logger,
      noHandleSignals: true,
      taskList: { noop: async () => seen.one() },
      preset: {
        worker: many
          ? { concurrentJobs: 24, localQueue: { size: 500 }, completeJobBatchDelay: 0, pollInterval: 500 }
          : { concurrentJobs: 16, pollInterval: 500 },
      },
    }),
    left: async () => {
      const { rows } = await pool.query('select count(*)::int as left from graphile_worker._private_jobs');
      return rows[0].left;
    },
  };
});
