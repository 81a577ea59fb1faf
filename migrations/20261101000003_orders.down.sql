drop table order_events;
drop table order_items;
drop table orders;
