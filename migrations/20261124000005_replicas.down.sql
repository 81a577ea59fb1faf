-- Take the views back first (`splitctl restore`); while one of them reads a replica, this fails and changes nothing.
drop table users_parked_events;
drop table orders_parked_events;
drop table users_cursors;
drop table orders_cursors;
drop table open_orders_replica;
drop table customers_replica;
