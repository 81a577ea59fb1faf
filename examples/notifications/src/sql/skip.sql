insert into skipped
values (?1, 1)
on conflict (reason) do update
set events = events + 1
