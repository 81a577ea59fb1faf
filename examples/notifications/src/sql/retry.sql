-- An event that could not be read belongs to no order, and stays parked.
update notifications
set state = 'waiting',
    attempts = 0
where state = 'parked'
  and order_id <> ''
