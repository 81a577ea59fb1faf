-- Of each order the oldest one that waits, so that its notifications are sent in their order.
select id, body, attempts
from notifications this
where state = 'waiting'
  and due <= ?1
  and not exists (
    select 1
    from notifications earlier
    where state = 'waiting'
      and earlier.order_id = this.order_id
      and earlier.number < this.number
  )
order by due, number
limit ?2
