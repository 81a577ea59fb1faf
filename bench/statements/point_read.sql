select id, email, name, status as "status: Status", created_at, updated_at, version
from users
where id = $1
