-- Execution: jobs that are stopped, that report, that wait for others, and that are taken up again.

create index jobs_stop_idx on krilin.jobs (stop_at) where stop_at is not null;
