select id, email, name, status, created_at, updated_at, version
from users
where id = $1
