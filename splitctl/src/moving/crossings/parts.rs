//! The parts of relations that cross, with all that it takes to create them again.

/// The parts with the oids `$1` as crossings: triggers, rules, policies, defaults and checks. A partition may fire a trigger
/// of its root otherwise than the root does.
pub const PARTS: &str = r"
    with recursive clones (root, state, oid, relid, name, its_state, depth) as (
        select t.oid, t.tgenabled, t.oid, t.tgrelid, t.tgname, t.tgenabled, 0
        from pg_trigger t
        where t.oid = any ($1::int8[]::oid[])
        union all
        select c.root, c.state, t.oid, t.tgrelid, t.tgname, t.tgenabled, c.depth + 1
        from clones c
        join pg_trigger t on t.tgparentid = c.oid
    ),
    part (kind, class, oid, relid, name, definition, comment, more) as (
        select
            'trigger',
            'pg_trigger'::regclass::oid,
            t.oid,
            t.tgrelid,
            t.tgname,
            pg_get_triggerdef(t.oid),
            'comment on trigger %I on %I.%I is %L',
            case t.tgenabled
                when 'D' then 'alter table %I.%I disable trigger %I'
                when 'R' then 'alter table %I.%I enable replica trigger %I'
                when 'A' then 'alter table %I.%I enable always trigger %I'
            end
        from pg_trigger t
        union all
        select
            'rule',
            'pg_rewrite'::regclass,
            r.oid,
            r.ev_class,
            r.rulename,
            pg_get_ruledef(r.oid),
            'comment on rule %I on %I.%I is %L',
            case r.ev_enabled
                when 'D' then 'alter table %I.%I disable rule %I'
                when 'R' then 'alter table %I.%I enable replica rule %I'
                when 'A' then 'alter table %I.%I enable always rule %I'
            end
        from pg_rewrite r
        union all
        select
            'policy',
            'pg_policy'::regclass,
            p.oid,
            p.polrelid,
            p.polname,
            concat(
                format(
                    'create policy %I on %s as permissive for %s to %s',
                    p.polname,
                    p.polrelid::regclass,
                    case p.polcmd
                        when 'r' then 'select'
                        when 'a' then 'insert'
                        when 'w' then 'update'
                        when 'd' then 'delete'
                        else 'all'
                    end,
                    (
                        select string_agg(case r.oid when 0 then 'public' else quote_ident(pg_get_userbyid(r.oid)) end, ', ')
                        from unnest(p.polroles) r (oid)
                    )
                ),
                ' using (' || pg_get_expr(p.polqual, p.polrelid) || ')',
                ' with check (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')'
            ),
            'comment on policy %I on %I.%I is %L',
            null
        from pg_policy p
        union all
        select
            'default',
            'pg_attrdef'::regclass,
            f.oid,
            f.adrelid,
            a.attname,
            format(
                'alter table %s alter column %I set default %s',
                f.adrelid::regclass,
                a.attname,
                pg_get_expr(f.adbin, f.adrelid)
            ),
            null,
            null
        from pg_attrdef f
        join pg_attribute a on a.attrelid = f.adrelid and a.attnum = f.adnum
        union all
        select
            'check',
            'pg_constraint'::regclass,
            c.oid,
            c.conrelid,
            c.conname,
            pg_get_constraintdef(c.oid),
            'comment on constraint %I on %I.%I is %L',
            null
        from pg_constraint c
        where c.contype = 'c'
    )
    select
        p.kind,
        n.nspname::text as schema,
        c.relname::text as name,
        p.name::text as part,
        rtrim(p.definition, ';') as definition,
        array_remove(array[
            (
                select format(p.comment, p.name, n.nspname, c.relname, d.description)
                from pg_description d
                where d.classoid = p.class
                  and d.objoid = p.oid
            ),
            format(p.more, n.nspname, c.relname, p.name)
        ], null) || array(
            select format(
                'alter table only %s %s trigger %I',
                o.relid::regclass,
                case o.its_state
                    when 'O' then 'enable'
                    when 'D' then 'disable'
                    when 'R' then 'enable replica'
                    else 'enable always'
                end,
                o.name
            )
            from clones o
            where p.class = 'pg_trigger'::regclass
              and o.root = p.oid
              and o.its_state <> o.state
            order by o.depth, o.oid
        ) as details,
        null::text as acl,
        '{}'::text[] as grants,
        false as is_filled
    from part p
    join pg_class c on c.oid = p.relid
    join pg_namespace n on n.oid = c.relnamespace
    where p.oid = any ($1::int8[]::oid[])
    order by 1 desc, 2, 3, 4";
