-- The mark stays in the table of cursors: what it says of the log remains true.
drop function archive_user_events(timestamptz, integer);
drop function user_events_older(text, timestamptz, integer);
comment on table users_cursors is 'How far users has read: orders'' feed, and its own log on the way to the broker. Owner: users.';
