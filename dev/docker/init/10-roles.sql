-- The container of docker-compose.postgres.yml runs this once, when it makes its data folder. The migrations would create
-- these roles without passwords.
create role users_svc login password 'users-dev';
create role orders_svc login password 'orders-dev';
