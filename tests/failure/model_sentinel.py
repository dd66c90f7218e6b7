"""A sentinel of the model: sentinel.c's monitoring and failover as far as the lease depends on it.

Owns: pings, s_down, o_down, votes, the failover's states, hello messages and tilt, function by function.
Rule: the names are those of the source, and so are the conditions; it moves only when the world's clock does.
Used by: model_world.py.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from shoal.sentinel import Report, Said, read_event
from tests.failure.model_scenario import (
    ASK_PERIOD,
    DOWN_AFTER,
    FAILOVER_TIMEOUT,
    INFO_PERIOD_IN_FAILOVER,
    NAME,
    PING_PERIOD,
    PUBLISH_PERIOD,
    SERVERS,
    TILT_PERIOD,
    TILT_TRIGGER,
)

if TYPE_CHECKING:
    from tests.failure.model_world import World


class SimSentinel:
    """One sentinel, after sentinel.c; the names of its fields are those of the source."""

    def __init__(self, world: World, number: int) -> None:
        self.world, self.number = world, number
        self.id = f"{number:040d}"
        self.skew = 0
        self.server = 0
        self.config_epoch = self.current_epoch = 0
        self.master_down: dict[int, bool] = {}
        self.reply_time: dict[int, int] = {}
        self.voted_for: dict[int, tuple[str, int]] = {}
        self.leader, self.leader_epoch = "", -1
        self.failover_start_time = world.scenario.not_before - 2 * FAILOVER_TIMEOUT
        self.failover_epoch = self.state_time = 0
        self.promoted = 0
        self.info_refresh = 0
        self.last_pub = world.random.randint(-PUBLISH_PERIOD, 0)
        self.last_reconn_time = -PING_PERIOD
        self.tilt, self.tilt_start, self.previous = False, 0, 0
        self.link = 0
        self.state = ""
        self._reset()
        phase = world.random.randint(0, PING_PERIOD)  # the ages that monitoring had reached when we begin to look
        self.act_ping_time, self.last_avail_time, self.last_pong_time = 0, -phase, -phase
        self.disconnected = False
        world.at(world.random.randint(0, 100), self.tick)

    def mstime(self) -> int:
        return self.world.now + self.skew

    def step_clock(self, jump: int) -> None:
        self.skew += jump

    def _reset(self) -> None:
        """sentinelResetMaster: what is known of others stays."""
        now = self.mstime()
        self.act_ping_time = self.last_avail_time = self.last_pong_time = now
        self.last_ping_time = 0
        self.s_down = self.o_down = False
        self._abort()
        self.lose_link()

    def lose_link(self) -> None:
        self.disconnected = True
        self.link += 1

    def publish(self, channel: str, payload: str) -> None:
        event = read_event(channel.encode(), payload.encode())
        if event is not None:
            for proxy in self.world.proxies:
                proxy.hear(self.number, event)

    def publish_master(self, channel: str) -> None:
        endpoint = SERVERS[self.server]
        self.publish(channel, f"master {NAME} {endpoint.host} {endpoint.port}")

    # ------------------------------------------------------------------------------------------------ the timer

    def tick(self) -> None:
        self.world.after(self.world.scenario.tick, self.tick)
        now = self.mstime()
        passed, self.previous = now - self.previous, now
        if passed < 0 or passed > TILT_TRIGGER:
            self.tilt, self.tilt_start = True, now
            self.publish("+tilt", "#tilt mode entered")
        self._reconnect(now)
        self._send_periodic(now)
        if self.tilt:
            if now - self.tilt_start < TILT_PERIOD:
                return
            self.tilt = False
            self.publish("-tilt", "#tilt mode exited")
        self._check_s_down(now)
        self._check_o_down()
        if self._start_failover_if_needed(now):
            self._ask(now, forced=True)
        self._failover_step(now)
        self._ask(now, forced=False)
        if self.state == "update_config":
            self._switch(self.promoted)

    def _reconnect(self, now: int) -> None:
        if not self.disconnected or now - self.last_reconn_time < PING_PERIOD:
            return
        self.last_reconn_time = now
        if self.world.refuses(self.number, self.server):
            return  # connect() failed at once: no ping is sent
        self.disconnected = False
        self._ping(now)

    def _ping(self, now: int) -> None:
        self.last_ping_time = now
        self.act_ping_time = self.act_ping_time or now
        link = self.link
        if self.world.reaches(self.number, self.server):
            self.world.after(self.world.scenario.delay, lambda: self._pong(link))

    def _pong(self, link: int) -> None:
        if link == self.link and self.world.reaches(self.number, self.server):
            self.last_avail_time = self.last_pong_time = self.mstime()
            self.act_ping_time = 0

    def _send_periodic(self, now: int) -> None:
        if now - self.last_pub > PUBLISH_PERIOD:
            self._hello(now)
        if (self.o_down or self.state) and now - self.info_refresh > INFO_PERIOD_IN_FAILOVER:
            self.world.after(self.world.scenario.delay, self._info_from_promoted)
        if self.disconnected:
            return
        period = min(DOWN_AFTER, PING_PERIOD)
        if now - self.last_pong_time > period and now - self.last_ping_time > period / 2:
            self._ping(now)

    def _check_s_down(self, now: int) -> None:
        elapsed = 0
        if self.act_ping_time:
            elapsed = now - self.act_ping_time
        elif self.disconnected:
            elapsed = now - self.last_avail_time
        down = elapsed > DOWN_AFTER
        if down != self.s_down:
            self.s_down = down
            self.publish_master("+sdown" if down else "-sdown")

    def _check_o_down(self) -> None:
        down = self.s_down and 1 + sum(self.master_down.values()) >= 2
        if down != self.o_down:
            self.o_down = down
            self.publish_master("+odown" if down else "-odown")

    def _ask(self, now: int, *, forced: bool) -> None:
        for other in self.world.sentinels:
            if other is self:
                continue
            elapsed = now - self.reply_time.get(other.number, -100_000)
            if elapsed > 5 * ASK_PERIOD:
                self.master_down.pop(other.number, None)
                self.voted_for.pop(other.number, None)
            if not self.s_down or (not forced and elapsed < ASK_PERIOD):
                continue
            self._ask_one(other, self.server, self.current_epoch, self.id if self.state else "*")

    def _ask_one(self, other: SimSentinel, server: int, epoch: int, runid: str) -> None:
        def asked() -> None:
            is_down = not other.tilt and other.server == server and other.s_down
            leader = other.vote(epoch, runid) if runid != "*" and other.server == server else None
            self.world.after(self.world.scenario.delay, lambda: answered(is_down, leader))

        def answered(is_down: bool, leader: tuple[str, int] | None) -> None:
            self.reply_time[other.number] = self.mstime()
            self.master_down[other.number] = is_down
            if leader is not None:
                self.voted_for[other.number] = leader

        if self.world.meet(self.number, other.number):
            self.world.after(self.world.scenario.delay, asked)

    # ------------------------------------------------------------------------------------------------ failover

    def vote(self, epoch: int, runid: str) -> tuple[str, int]:
        self._new_epoch(epoch)
        if self.leader_epoch < epoch and self.current_epoch <= epoch:
            self.leader, self.leader_epoch = runid, self.current_epoch
            self.publish("+vote-for-leader", f"{runid} {self.leader_epoch}")
            if runid != self.id:
                self.failover_start_time = self.mstime() + self.world.random.randint(0, 999)
        return self.leader, self.leader_epoch

    def _new_epoch(self, epoch: int) -> None:
        if epoch > self.current_epoch:
            self.current_epoch = epoch
            self.publish("+new-epoch", str(epoch))

    def _leader_of(self, epoch: int) -> str | None:
        votes: dict[str, int] = {}
        for leader, leader_epoch in self.voted_for.values():
            if leader_epoch == self.current_epoch:
                votes[leader] = votes.get(leader, 0) + 1
        winner = max(votes, key=lambda one: votes[one], default=None)
        mine, mine_epoch = self.vote(epoch, winner or self.id)
        if mine_epoch == epoch:
            votes[mine] = votes.get(mine, 0) + 1
        winner = max(votes, key=lambda one: votes[one], default=None)
        return winner if winner is not None and votes[winner] >= 2 else None

    def _start_failover_if_needed(self, now: int) -> bool:
        if not self.o_down or self.state or now - self.failover_start_time < 2 * FAILOVER_TIMEOUT:
            return False
        self._start_failover(now)
        return True

    def _start_failover(self, now: int) -> None:
        self.state, self.state_time = "wait_start", now
        self.current_epoch += 1
        self.failover_epoch = self.current_epoch
        self.publish("+new-epoch", str(self.current_epoch))
        self.publish_master("+try-failover")
        self.failover_start_time = now + self.world.random.randint(0, 999)

    def force_failover(self) -> None:
        if not self.state and self._replicas():
            self._start_failover(self.mstime())
            self.forced = True

    def _replicas(self) -> list[int]:
        return [n for n in range(len(SERVERS)) if n != self.server and self.world.reaches(self.number, n)]

    def _failover_step(self, now: int) -> None:
        """One state a tick, as sentinelFailoverStateMachine."""
        match self.state:
            case "wait_start":
                self._wait_start(now)
            case "select_slave":
                if replicas := self._replicas():
                    self.promoted = self.world.random.choice(replicas)
                    self._go("send_slaveof_noone", now)
                else:
                    self._abort()
            case "send_slaveof_noone":
                told = self.number, self.failover_epoch, self.promoted
                self.world.after(self.world.scenario.delay, lambda: self.world.promote(*told))
                self._go("wait_promotion", now)
            case "wait_promotion" if now - self.state_time > FAILOVER_TIMEOUT:
                self._abort()
            case "reconf_slaves" if now - self.state_time >= self.world.scenario.slow_reconf:
                self._go("update_config", now)

    def _wait_start(self, now: int) -> None:
        if self._leader_of(self.failover_epoch) == self.id or self.forced:
            self.publish_master("+elected-leader")
            self._go("select_slave", now)
        elif now - self.failover_start_time > FAILOVER_TIMEOUT:
            self._abort()

    def _go(self, state: str, now: int) -> None:
        self.state, self.state_time = state, now
        if state not in ("wait_promotion", "update_config"):
            self.publish_master(f"+failover-state-{state.replace('_', '-')}")

    def _abort(self) -> None:
        if self.state == "wait_promotion":
            self.world.abandon(self.number, self.failover_epoch)
        self.state, self.forced = "", False

    def _info_from_promoted(self) -> None:
        self.info_refresh = self.mstime()
        if self.state == "wait_promotion" and self.world.roles[self.promoted] == "master":
            self.config_epoch = self.failover_epoch
            self._go("reconf_slaves", self.mstime())
            self.last_pub -= PUBLISH_PERIOD + 1

    def _switch(self, server: int) -> None:
        self.server = server
        self.publish("+switch-master", f"{NAME} ...")
        self._reset()

    def _hello(self, now: int) -> None:
        self.last_pub = now
        server = self.promoted if self.state in ("reconf_slaves", "update_config") else self.server
        said = (self.current_epoch, self.config_epoch, server)
        for other in self.world.sentinels:
            if other is not self and self.world.meet(self.number, other.number):
                self.world.after(self.world.scenario.delay, partial(other.heard_hello, *said))

    def heard_hello(self, current_epoch: int, config_epoch: int, server: int) -> None:
        self._new_epoch(current_epoch)
        if config_epoch > self.config_epoch:
            self.config_epoch = config_epoch
            if server != self.server:
                self._switch(server)

    def said(self) -> Said:
        """This sentinel's entry in SENTINEL MASTERS."""
        flags = ["master"]
        flags += ["s_down"] * self.s_down + ["o_down"] * self.o_down + ["disconnected"] * self.disconnected
        flags += ["failover_in_progress"] * bool(self.state)
        report = Report(
            endpoint=SERVERS[self.server],
            flags=frozenset(flags),
            role_reported="master",
            failover_state=self.state,
            config_epoch=self.config_epoch,
            down_after_ms=DOWN_AFTER,
            quorum=2,
            other_sentinels=2,
        )
        return Said(report, self.mstime() - self.last_avail_time)
