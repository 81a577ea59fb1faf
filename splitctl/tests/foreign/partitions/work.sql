insert into meters.meters (code, site_id, unit, limits)
values ('WO-{n}', 3, 'it''s odd', meters.span({n} * 10, {n} * 10 + 5))

begin;
insert into meters.readings (meter, read_at, amount) values
    ('WO-{n}', '2025-03-03 12:00+00', 1.234), ('WO-{n}', '2026-01-03 12:00+00', 2.345),
    ('WO-{n}', '2026-02-03 12:00+00', 3.456), ('WO-{n}', '2031-02-03 12:00+00', 4.567);
update meters.readings set quality = 'corrected' where meter = 'WO-{n}' and read_at < '2026-01-01';
update meters.readings set read_at = '2026-01-31 23:00+00' where meter = 'WO-{n}' and read_at = '2026-02-03 12:00+00';
insert into meters.alarms (reading_id, read_at, quality, meter)
select id, read_at, quality, meter from meters.readings where meter = 'WO-{n}' and quality = 'measured';
delete from meters.readings where meter = 'WO-{n}' and read_at = '2026-01-03 12:00+00';
commit

do $$
begin
    assert (select count(*) from meters.readings where meter = 'WO-{n}') = 3, 'the readings';
    assert (select quality from meters.readings where meter = 'WO-{n}' and read_at < '2026-01-01') = 'corrected',
        'the archive';
    assert (select amount from meters.readings where meter = 'WO-{n}' and read_at > '2030-01-01') = 4.6, 'the own trigger';
    assert (select count(*) from meters.alarms where meter = 'WO-{n}') = 2, 'the cascade';
    assert (select total from meters.usage_of('WO-{n}')) = 1.234 + 3.456 + 4.6, 'the function';
    assert (
        select count(*) from meters.changes c join meters.readings r on r.id = c.reading_id where r.meter = 'WO-{n}'
    ) = 1, 'the trigger of all partitions';
end $$

do $$
begin
    insert into meters.readings (meter, read_at, amount) values ('WO-{n}', '2026-01-05 12:00+00', -1);
    raise 'a negative amount was taken';
exception when check_violation then null;
end $$

do $$
begin
    insert into meters.meters (code, site_id, unit, limits)
    values ('WO-9999', 3, 'it''s odd', meters.span({n} * 10 + 1, {n} * 10 + 2));
    set constraints all immediate;
    raise 'limits overlap';
exception when exclusion_violation then null;
end $$

update meters.meters set code = 'XX-{n}', seen = seen + meters.spans(meters.span(100, 101)) where code = 'WO-{n}'

do $$
begin
    assert (select count(*) from meters.alarms where meter = 'XX-{n}') = 2, 'the cascade of a new code';
end $$
