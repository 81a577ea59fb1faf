-- The rules refuse with the SQLSTATE of a violated check again.
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
            format('errcode = ''%s''(, [^;]*constraint = ''%s'')', rule.code, rule.name),
            format('errcode = ''%s''\1', 'check_violation'));
    end loop;
end
$$;
