# A server whose library is of another version than the extension's SQL objects does
# not serve as a node and says what to do; once they agree it starts by itself.
#
# Method: the version in the catalog of node 2 is changed, as it is after the files of another
# version are installed, and the server is started again.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, shards => 8);
my $p = PayshardPayments->new($c);

sub set_version { return $c->sql(2, "UPDATE pg_extension SET extversion = '$_[0]' WHERE extname = 'payshard'"); }

set_version('0.9');
my $log = $c->log_size(2);
$c->restart(2);
$c->wait_log(2, qr/WARNING:  this payshard node does not start: its extension has another version than its library/, 30, $log);
pass('the log says why it does not start');
my ($status, $out, $err) = $c->try_sql(2, 'SELECT count(*) FROM accounts');
like($err, qr/ERROR:  55000: the extension payshard has another version than its library/, 'a statement is told, too');
like($err, qr/DETAIL:  Its SQL objects in this database are of version 0\.9, the library that this server has loaded is of version 1\.0\./, '... which versions');
like($err, qr/HINT:  Run ALTER EXTENSION payshard UPDATE/, '... and what to do');
like(($c->try_sql(2, $_))[2], qr/ERROR:  55000: the extension payshard has another version/, "so does $_")
  foreach 'ALTER TABLE accounts ADD COLUMN more int', 'SELECT * FROM payments JOIN accounts a ON a.id = account_id',
  'DELETE FROM payments', 'COPY (SELECT * FROM accounts) TO STDOUT', 'COPY accounts TO STDOUT',
  'COPY payshard_data.public_accounts_0 TO STDOUT', 'TRUNCATE payments', 'EXPLAIN SELECT * FROM accounts',
  'PREPARE p AS SELECT count(*) FROM accounts; EXECUTE p';
is($c->sql(2, 'SELECT payshard.incarnation()'), '0', 'it has not started');

set_version('1.0');
$c->wait_started(2);
$c->wait_all_in_sync;
$p->start(2, 10);
$p->finish;
$p->assert_kept('they agree: it starts by itself');

my $new = $c->new_server;
$c->sql($new, "UPDATE pg_extension SET extversion = '0.9' WHERE extname = 'payshard'");
($status, $out, $err) = $c->try_sql($new, "SELECT payshard.create_cluster('other')");
like($err, qr/ERROR:  55000: the extension payshard has another version than its library/, 'no cluster is made of it');
done_testing();
