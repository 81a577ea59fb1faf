revoke all on _sqlx_migrations from users_svc, orders_svc;
revoke all on schema public from users_svc, orders_svc;

-- Dropped only if no database of the cluster uses it and we may: otherwise it stays.
do $$
declare
    service text;
begin
    foreach service in array array['users_svc', 'orders_svc'] loop
        begin
            execute format('drop role if exists %I', service);
        exception
            -- Used elsewhere; not ours to drop; dropped by another database's revert at this very moment.
            when dependent_objects_still_exist or insufficient_privilege or internal_error then null;
        end;
    end loop;
end
$$;
