-- As before: everybody may connect, and create temporary tables.
do $$
declare
    service text;
    setting text;
begin
    execute format('grant connect, temporary on database %I to public', current_database());
    foreach service in array array['orders_svc'] loop
        execute format('revoke connect on database %I from %I', current_database(), service);
        begin
            foreach setting in array array[
                'statement_timeout',
                'lock_timeout',
                'idle_in_transaction_session_timeout',
                'client_connection_check_interval'
            ] loop
                execute format('alter role %I in database %I reset %s', service, current_database(), setting);
            end loop;
            -- The limit belongs to the cluster: it stays while another database uses the role, or if an operator changed it.
            if exists (
                select
                from pg_roles r
                where r.rolname = service
                  and r.rolconnlimit = greatest(20, current_setting('max_connections')::integer * 2 / 5)
                  and not exists (
                      select
                      from pg_shdepend s
                      where s.refclassid = 'pg_authid'::regclass
                        and s.refobjid = r.oid
                        and s.dbid not in (0, (select d.oid from pg_database d where d.datname = current_database()))
                  )
            ) then
                execute format('alter role %I connection limit -1', service);
            end if;
        exception
            when insufficient_privilege or internal_error then null;
        end;
    end loop;
end
$$;
