select
    e.version, e.type, e.data as "data: Box<RawValue>", e.occurred_at,
    o.user_id, c.name as "name?", c.status as "status?", c.version as "customer_version?"
from order_events e
join orders o on o.id = e.order_id
left join customers c on c.id = o.user_id and $3::boolean
where e.order_id = $1
  and e.occurred_at <= $2
order by e.version
