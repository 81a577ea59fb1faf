drop trigger users_no_open_orders on users;
drop function users_refuse_open_orders();
drop trigger orders_user_active on orders;
drop function orders_refuse_inactive_user();
alter table orders drop constraint orders_user_id_fkey;
drop view open_orders;
drop view customers;
