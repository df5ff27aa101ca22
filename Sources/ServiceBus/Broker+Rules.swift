/// Rules added, replaced and removed while the broker runs.
internal import AMQP
internal import EventLoops

extension Broker {
    /// Adds a rule to a subscription, or replaces the one of its name.
    ///
    /// - Returns: why it cannot be; nil when it is on its way to the disk, which `done` is told.
    func put(
        _ rule: SubscriptionRule, to subscription: MessageQueue, replacing: Bool = false,
        then done: @escaping @EventLoop (SystemError?) -> Void
    ) -> AMQPError? {
        guard subscription.isSubscription else {
            return AMQPError("amqp:not-allowed", "'\(subscription.name)' is no subscription and has no rules")
        }
        do throws(SubscriptionRule.Refusal) {
            _ = try rule.compiled()
        } catch {
            return AMQPError("com.microsoft:argument-error", error.reason)
        }
        var settings = subscription.settings
        var rule = rule
        let index = settings.rules.firstIndex { $0.name.lowercased() == rule.name.lowercased() }
        switch (index, replacing) {
        case (let index?, true):
            rule.createdAt = settings.rules[index].createdAt
            settings.rules[index] = rule
        case (nil, false):
            guard settings.rules.count < ServiceBusLimits.ruleCount else {
                return AMQPError(
                    "amqp:resource-limit-exceeded",
                    "'\(subscription.name)' has \(ServiceBusLimits.ruleCount) rules already")
            }
            rule.createdAt = now
            settings.rules.append(rule)
        case (_?, false):
            return AMQPError(
                "com.microsoft:entity-already-exists",
                "The rule '\(rule.name)' of '\(subscription.name)' already exists.")
        case (nil, true): return .ruleNotFound(rule.name, subscription)
        }
        update(subscription, settings, then: done)
        return nil
    }

    /// Removes a rule; a subscription without rules takes nothing.
    func removeRule(
        _ name: String, from subscription: MessageQueue, then done: @escaping @EventLoop (SystemError?) -> Void
    ) -> AMQPError? {
        var settings = subscription.settings
        guard let index = settings.rules.firstIndex(where: { $0.name.lowercased() == name.lowercased() }) else {
            return .ruleNotFound(name, subscription)
        }
        settings.rules.remove(at: index)
        update(subscription, settings, then: done)
        return nil
    }
}

extension AMQPError {
    fileprivate static func ruleNotFound(_ name: String, _ subscription: MessageQueue) -> AMQPError {
        AMQPError("amqp:not-found", "There is no rule '\(name)' of '\(subscription.name)'.")
    }
}
