-- An event that cannot be read is parked.
insert into notifications (id, order_id, body, error, state)
values (?1, ?2, ?3, ?4, case when ?4 is null then 'waiting' else 'parked' end)
on conflict (id) do nothing
