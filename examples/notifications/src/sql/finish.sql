-- The body of a notification that was sent is not needed any more.
update notifications
set state = ?2,
    error = ?3,
    due = ?4,
    attempts = attempts + 1,
    body = case when ?2 <> 'sent' then body end
where id = ?1
