#!/usr/bin/env escript
%% -*- erlang -*-
%%! +S 1:1 +SDio 1 +sbwt none +sbwtdcpu none +sbwtdio none +P 1000000
%% The measures of this benchmark on Erlang/OTP's own supervisor. One scheduler, as the others have one thread, which
%% does not spin while it waits, and no log, because that would be most of a crash.
%%
%% escript otp.escript MEASURE COUNT prints the values on one line.
-mode(compile).
-export([main/1, init/1, start_child/1, handle_call/3, handle_cast/2]).

-define(BATCH, 500).
-define(CRASHES, 1000).
-define(WARM_CRASHES, 100).
-define(WINDOW, 3600).

main([Measure, Count]) ->
    logger:set_primary_config(level, none),
    process_flag(trap_exit, true),
    Values = measure(Measure, list_to_integer(Count)),
    io:format("~s~n", [lists:join(" ", [io_lib:format("~.3f", [V * 1.0]) || V <- Values])]).

measure("message", Count) ->
    start(one_for_one, 1),
    Child = child(1),
    Batches = Count div ?BATCH,
    {_, Cpu} = cost(fun() -> flood(Child, Batches) end),
    [Cpu * 1000 / Count];
measure("call", Count) ->
    start(one_for_one, 1),
    Child = child(1),
    {_, Cpu} = cost(fun() -> calls(Child, Count) end),
    [Cpu * 1000 / Count];
measure("crash", Before) ->
    start(one_for_one, 1),
    [crash() || _ <- lists:seq(1, max(Before, ?WARM_CRASHES))],
    Times = lists:sort([crash() || _ <- lists:seq(1, ?CRASHES)]),
    [lists:nth(?CRASHES div 2 + 1, Times) / 1000, lists:nth(?CRASHES * 99 div 100 + 1, Times) / 1000];
measure("start", Children) ->
    Specs = specs(one_for_one, Children),
    {_, Cpu} = cost(fun() -> {ok, _} = supervisor:start_link(?MODULE, Specs), arrivals(Children) end),
    [Cpu / Children];
measure("stop", Children) ->
    Supervisor = start(one_for_one, Children),
    {_, Cpu} = cost(fun() -> stop(Supervisor) end),
    [Cpu / Children];
measure("one_for_all", Children) ->
    start(one_for_all, Children),
    Round = fun() ->
        gen_server:cast(child(Children div 2), crash),
        arrivals(Children),
        _ = gen_server:call(child(Children), total)
    end,
    Round(),
    {Wall, Cpu} = cost(Round),
    [Wall / 1000, Cpu / 1000];
measure("memory", Children) ->
    garbage_collect(),
    Before = erlang:memory(total),
    Supervisor = start(one_for_one, Children),
    garbage_collect(Supervisor),
    garbage_collect(),
    [(erlang:memory(total) - Before) / Children].

%% Wall time and CPU of all threads, both in us. The runtime's own CPU clock counts in ms, that of the system in ns.
cost(Work) ->
    Cpu = cpu(),
    Wall = erlang:monotonic_time(microsecond),
    Work(),
    {erlang:monotonic_time(microsecond) - Wall, cpu() - Cpu}.

cpu() ->
    {ok, Threads} = prim_file:list_dir("/proc/self/task"),
    lists:sum([cpu(Thread) || Thread <- Threads]) / 1000.

cpu(Thread) ->
    {ok, Text} = prim_file:read_file("/proc/self/task/" ++ Thread ++ "/schedstat"),
    binary_to_integer(hd(binary:split(Text, <<" ">>))).

flood(_, 0) -> ok;
flood(Child, Batches) ->
    [gen_server:cast(Child, {add, N}) || N <- lists:seq(1, ?BATCH)],
    _ = gen_server:call(Child, total),
    flood(Child, Batches - 1).

calls(_, 0) -> ok;
calls(Child, Count) ->
    _ = gen_server:call(Child, total),
    calls(Child, Count - 1).

%% From the message that makes it fail to the answer of the next incarnation, in ns.
crash() ->
    Began = erlang:monotonic_time(nanosecond),
    gen_server:cast(child(1), crash),
    until_served(),
    erlang:monotonic_time(nanosecond) - Began.

until_served() ->
    try gen_server:call(child(1), total, infinity)
    catch exit:_ -> erlang:yield(), until_served()
    end.

child(Number) -> list_to_atom("counter-" ++ integer_to_list(Number)).

start(Strategy, Children) ->
    {ok, Supervisor} = supervisor:start_link(?MODULE, specs(Strategy, Children)),
    arrivals(Children),
    Supervisor.

stop(Supervisor) ->
    Reference = monitor(process, Supervisor),
    exit(Supervisor, shutdown),
    receive {'DOWN', Reference, process, _, _} -> ok end.

arrivals(0) -> ok;
arrivals(Children) -> receive arrived -> arrivals(Children - 1) end.

%% Only few have a name: the atoms of 100,000 would be measured with them.
specs(Strategy, Children) ->
    Flags = #{strategy => Strategy, intensity => 1000000000, period => ?WINDOW},
    Specs = [#{id => Number, start => {?MODULE, start_child, [{counter, name(Number), self()}]}}
             || Number <- lists:seq(1, Children)],
    {supervisor, {Flags, Specs}}.

name(Number) when Number =< 1000 -> child(Number);
name(_) -> none.

start_child({counter, none, Parent}) -> gen_server:start_link(?MODULE, {counter, Parent}, []);
start_child({counter, Name, Parent}) -> gen_server:start_link({local, Name}, ?MODULE, {counter, Parent}, []).

init({supervisor, Specs}) -> {ok, Specs};
init({counter, Parent}) -> Parent ! arrived, {ok, 0}.

handle_call(total, _, Total) -> {reply, Total, Total}.

handle_cast({add, N}, Total) -> {noreply, Total + N};
handle_cast(crash, _) -> error(of_the_benchmark).
