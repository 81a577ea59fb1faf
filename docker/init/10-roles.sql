-- Run once, when the container of docker-compose.postgres.yml makes its data folder. The migrations would make these roles
-- too, but without passwords.
create role users_svc login password 'users-dev';
create role orders_svc login password 'orders-dev';
