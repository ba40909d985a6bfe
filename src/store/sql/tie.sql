-- tie: gives a job that was placed in this very transaction its deadline, its parent and its children's leave to begin first.
--
-- Invariant: nobody else has seen the row yet, so it can still be parked. Rides on jobs_pkey; for the `any` see end.sql.
update krilin.jobs j
set parent_id = i.parent_id,
    children_when = i.children_when,
    state = case when i.children_when is not null then 'parked' else j.state end,
    parked_reason = case when i.children_when is not null then 'children' end,
    stop_at = coalesce(i.stop_at, j.run_at + i.stop_after),
    stop_reason = case when i.stop_at is not null or i.stop_after is not null then 'deadline' end
from unnest($1::uuid[], $2::uuid[], $3::text[], $4::timestamptz[], $5::interval[])
    as i(id, parent_id, children_when, stop_at, stop_after)
where j.id = any (array[i.id])
