-- One role for each service. They are what keeps each service to its own tables, and what the compiler checks under.
-- A role belongs to the cluster, not to this database: it may exist already, or be made by another database's
-- migration at this very moment. An existing role is left as it is, its password above all.
do $$
declare
    service text;
begin
    foreach service in array array['users_svc', 'orders_svc'] loop
        begin
            -- No login yet: an operator gives each role its own (`alter role users_svc login password '…'`).
            execute format('create role %I nologin', service);
        exception
            when duplicate_object or unique_violation then null;
        end;
    end loop;
end
$$;

grant usage on schema public to users_svc, orders_svc;

-- Each service asks at its start whether the schema it needs has been applied.
grant select on _sqlx_migrations to users_svc, orders_svc;
