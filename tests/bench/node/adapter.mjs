// The loops of `adapter/src/lib.rs` for systems of Node.js: the same commands, the same line of JSON.
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';

const WARM_UP = 20;
const SETTLE_MS = 1_500;
const LOOK_MS = 2;

export const payload = () => ({ habit: 'read', day: '2026-01-01' });

// What the handlers of this process have seen; a job's handler calls `seen.one()` and returns.
export const seen = {
  count: 0,
  wanted: 0,
  timed: false,
  latest: [],
  wake: () => {},
  one() {
    if (this.timed) this.latest.push(performance.now());
    this.count += 1;
    if (this.count === this.wanted) this.wake();
  },
  async until(count) {
    this.wanted = count;
    while (this.count < count) await new Promise((resolve) => { this.wake = resolve; });
  },
};

const rate = (jobs, begun) => ({ per_s: (jobs * 1_000) / (performance.now() - begun) });

async function enqueue(system, jobs, producers) {
  await system.enqueue();
  const share = Math.floor(jobs / producers);
  const begun = performance.now();
  await Promise.all(Array.from({ length: producers }, async () => {
    for (let n = 0; n < share; n += 1) await system.enqueue();
  }));
  return rate(share * producers, begun);
}

async function drain(system, jobs) {
  const begun = performance.now();
  await system.work(true);
  await seen.until(jobs);
  for (;;) {
    // The look that finds nothing left tells of the moment in which it began: what it takes is no work of the system's.
    const said = rate(jobs, begun);
    if ((await system.left()) === 0) return said;
    await sleep(LOOK_MS);
  }
}

async function pickup(system, jobs, gap, alone) {
  await system.work(false);
  await sleep(SETTLE_MS);
  for (let n = 0; n < WARM_UP; n += 1) {
    await system.enqueue();
    await seen.until(n + 1);
    await sleep(gap);
  }
  seen.timed = true;
  const asked = [];
  if (alone) {
    for (let n = 0; n < jobs; n += 1) {
      asked.push(performance.now());
      await system.enqueue();
      await seen.until(WARM_UP + n + 1);
      await sleep(gap);
    }
  } else {
    const begun = performance.now();
    await Promise.all(Array.from({ length: jobs }, async (_, n) => {
      await sleep(Math.max(0, begun + gap * n - performance.now()));
      asked[n] = performance.now();
      await system.enqueue();
    }));
    await seen.until(WARM_UP + jobs);
  }
  const waits = asked.map((at, n) => Math.max(0, seen.latest[n] - at)).sort((a, b) => a - b);
  // Who goes with jobs in hand leaves them to whoever finds their leases run out.
  while ((await system.left()) > 0) await sleep(LOOK_MS);
  const at = (part) => waits[Math.round((waits.length - 1) * part)];
  return { p50_ms: at(0.5), p99_ms: at(0.99) };
}

// Runs the command that the program was given for the system that `connect` gives.
export async function main(connect) {
  const [command, url, ...texts] = process.argv.slice(2);
  const numbers = texts.map(Number);
  const system = await connect(url);
  const commands = {
    setup: () => system.setup(),
    empty: () => system.empty(),
    enqueue: ([jobs, producers]) => enqueue(system, jobs, producers),
    bulk: async ([jobs]) => {
      const begun = performance.now();
      await system.bulk(jobs);
      return rate(jobs, begun);
    },
    drain: ([jobs]) => drain(system, jobs),
    pickup: ([jobs, gap]) => pickup(system, jobs, gap, true),
    paced: ([perSecond, seconds]) => pickup(system, perSecond * seconds, 1_000 / perSecond, false),
    idle: async ([seconds]) => {
      await system.work(false);
      await sleep(seconds * 1_000);
    },
  };
  if (!commands[command]) {
    process.stderr.write(`not a command: ${command}\n`);
    process.exit(2);
  }
  const said = await commands[command](numbers);
  process.stdout.write(`${JSON.stringify(said ?? {})}\n`, () => process.exit(0));
}
