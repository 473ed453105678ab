#!/usr/bin/perl
# doc/views.md is as the comments of the install script.
use strict;
use warnings;
use Test::More tests => 1;

is(system($^X, 'scripts/doc-views', '--check'), 0, 'doc/views.md is as scripts/doc-views makes it');
