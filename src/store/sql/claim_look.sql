-- claim_look: what a claim (claim.sql, here `claimed`) took, and `lanes`: whether the queue has limits, or jobs of users or
-- with a key wait, so that it must be claimed from by turns (claim_in_turn.sql). Gives at least one row. To hand each job on
-- costs a tenth of its claim.
select claimed.*, flow.lanes
from (
    select coalesce(bool_or(q.restricted), false) or exists (
            select from krilin.jobs w
            where w.state = 'ready' and w.queue = $1 and (w.user_id is not null or w.concurrency_key is not null)
        ) as lanes
    from krilin.queues q where q.name in ($1, 'all')
) as flow
left join claimed on true
