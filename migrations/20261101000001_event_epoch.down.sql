drop function event_epoch();
