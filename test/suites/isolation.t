#!/usr/bin/perl
# Two sessions on one node, exact interleavings: test/isolation/specs.
use strict;
use warnings;
use File::Basename;
use Test::More;
use PayshardSuite;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

my @names = map { basename($_, '.spec') } sort glob('test/isolation/specs/*.spec');
plan skip_all => 'no files in test/isolation/specs' unless @names;

# Not a --temp-instance of pg_isolation_regress: that runs with fsync off, and a node
# refuses to.
my $server = PostgreSQL::Test::Cluster->new('isolation');
$server->init(extra => [ '--no-locale', '--encoding=UTF8', '-U', 'postgres' ]);
$server->append_conf('postgresql.conf', PostgreSQL::Test::Utils::slurp_file('test/payshard.conf'));
$server->start;

# One node is a whole cluster; specs find it ready.
my $database = 'contrib_regression';
local $ENV{PGUSER} = 'postgres';
$server->safe_psql('postgres', "CREATE DATABASE $database");
$server->safe_psql($database, $_) foreach (
	'CREATE EXTENSION payshard', 'CREATE EXTENSION payshard_fault',
	"SELECT payshard.create_cluster('pay', shards => 4, replicas => 1)");
$server->poll_query_until($database, 'SELECT payshard.incarnation() <> 0')
  or BAIL_OUT('the node does not start to serve');

PayshardSuite::run_driver(
	"$ENV{PAYSHARD_PGXS}/src/test/isolation/pg_isolation_regress", 'output_iso',
	'--inputdir=test/isolation', '--use-existing',
	'--host=' . $server->host, '--port=' . $server->port,
	'--user=postgres', "--dbname=$database", @names);
$server->stop('immediate');
