select id as "id!"
from (
    (select id from orders where id > $1 order by id limit $2)
    union
    (select distinct order_id from order_events where order_id > $1 order by order_id limit $2)
) ids
order by id
limit $2
