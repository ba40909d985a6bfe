-- renew: one worker's heartbeat, all its leases at once. Gives those that still hold.
--
-- Invariant: a lease is renewed only under its present token; a lease that ran out but was not yet taken away is renewed
-- too, for nobody else has the job.
-- Rides on jobs_pkey; for the `limit` and the `any` see end.sql.
update krilin.jobs j
set lease_until = krilin.now() + $3
from (select * from unnest($1::uuid[], $2::uuid[]) as i(id, token) limit cardinality($1)) as i
where j.id = any (array[i.id]) and j.lease_token = i.token
returning j.id, j.lease_token
