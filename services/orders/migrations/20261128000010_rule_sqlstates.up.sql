-- Each business rule refuses with an SQLSTATE of its own, of class RU, besides the name of its constraint: an engine of several
-- nodes hands on no names. docs/migration-path.md lists them. Only the codes change: what a rule reads depends on whether
-- the replica is in use, and stays as it is.
do $$
declare
    rule record;
begin
    for rule in
        select p.oid, known.code, known.name
        from (
            values
                ('orders_refuse_inactive_user', 'RU001', 'orders_user_active'),
                ('orders_refuse_inactive_user', 'RU002', 'orders_user_known'),
                ('users_refuse_open_orders', 'RU003', 'users_no_open_orders')
        ) known (function, code, name)
        join pg_proc p on p.proname = known.function and p.pronamespace = 'public'::regnamespace
    loop
        execute regexp_replace(
            pg_get_functiondef(rule.oid),
            format('errcode = ''%s''(, [^;]*constraint = ''%s'')', 'check_violation', rule.name),
            format('errcode = ''%s''\1', rule.code));
    end loop;
end
$$;
