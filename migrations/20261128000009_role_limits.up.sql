-- What one service may take of the server, and who may connect at all.
--
-- A service sets its own, shorter times for each session. These are for a session that did not: behind a pooler that drops
-- them, or opened by hand with the service's password.
do $$
declare
    service text;
    setting text;
begin
    execute format('revoke connect, temporary on database %I from public', current_database());
    foreach service in array array['users_svc', 'orders_svc'] loop
        execute format('grant connect on database %I to %I', current_database(), service);
        begin
            foreach setting in array array[
                'statement_timeout = ''5s''',
                'lock_timeout = ''2s''',
                'idle_in_transaction_session_timeout = ''10s''',
                'client_connection_check_interval = ''2s'''
            ] loop
                execute format('alter role %I in database %I set %s', service, current_database(), setting);
            end loop;
            -- The limit belongs to the cluster, so one that an operator has set stays. Two fifths for each of two services
            -- leave a fifth for operators.
            if exists (select from pg_roles where rolname = service and rolconnlimit = -1) then
                execute format(
                    'alter role %I connection limit %s',
                    service,
                    greatest(20, current_setting('max_connections')::integer * 2 / 5)
                );
            end if;
        exception
            when insufficient_privilege then
                raise warning 'the limits of % are not set: the role that runs the migrations may not alter it', service;
            -- Another database's migration sets the same limit at this very moment.
            when internal_error then null;
        end;
    end loop;
end
$$;
