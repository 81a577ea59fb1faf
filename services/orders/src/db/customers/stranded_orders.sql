select o.id, o.status = 'shipped' as "shipped!"
from orders o
join customers_replica c on c.id = o.user_id
where o.user_id = any($1)
  and o.status in ('placed', 'paid', 'shipped')
  and c.status = 'deactivated'
