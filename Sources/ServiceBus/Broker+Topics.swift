/// Topics: what is sent to one is put into each of its subscriptions whose rules let it through.
internal import AMQP
internal import EventLoops

extension Broker {
    /// The path of a topic's subscription.
    static func subscriptionPath(_ topic: String, _ subscription: String) -> String {
        "\(topic)/Subscriptions/\(subscription)"
    }

    /// Makes a topic, which holds nothing itself but what is scheduled.
    func createTopic(_ name: String, _ settings: QueueSettings) {
        guard queue(named: name) == nil else { return }
        var settings = settings
        settings.isTopic = true
        createQueue(name, settings)
    }

    /// Makes what a binding names: a queue, a topic, or a subscription that takes everything, with its topic.
    public func create(_ entity: String, _ settings: QueueSettings, isTopic: Bool) {
        guard let range = entity.lowercased().firstRange(of: "/subscriptions/") else {
            if isTopic { createTopic(entity, settings) } else { createQueue(entity, settings) }
            return
        }
        let count = entity.lowercased()[..<range.lowerBound].count
        createTopic(String(entity.prefix(count)), QueueSettings())
        var settings = settings
        settings.rules = [.everything]
        createQueue(entity, settings)
    }

    /// Makes a topic's subscription, or gives it the properties and rules of the configuration.
    func createSubscription(_ topic: String, _ subscription: EmulatorConfiguration.Subscription) {
        var settings = subscription.settings
        settings.rules = subscription.rules.isEmpty ? [.everything] : subscription.rules
        let name = Self.subscriptionPath(topic, subscription.name)
        guard let existing = queue(named: name) else {
            for index in settings.rules.indices { settings.rules[index].createdAt = now }
            createQueue(name, settings)
            return
        }
        settings.createdAt = existing.settings.createdAt
        settings.updatedAt = existing.settings.updatedAt
        for index in settings.rules.indices {
            let old = existing.settings.rules.first { $0.name == settings.rules[index].name }
            settings.rules[index].createdAt = old?.createdAt ?? now
        }
        if settings != existing.settings { update(existing, settings) }
    }

    /// Joins topics and subscriptions, whichever was there first.
    func join(_ queue: MessageQueue) {
        if queue.isSubscription {
            guard let end = queue.name.lowercased().firstRange(of: "/subscriptions/")?.lowerBound else { return }
            let topic = self.queue(named: String(queue.name.lowercased()[..<end]))
            queue.topic = topic
            topic?.subscriptions.append(queue)
        } else if queue.settings.isTopic {
            let prefix = queue.name.lowercased() + "/subscriptions/"
            queue.subscriptions = queues.filter { $0.key.hasPrefix(prefix) }.map(\.value).sorted { $0.id < $1.id }
            for subscription in queue.subscriptions { subscription.topic = queue }
        }
    }

    /// Puts a message into every subscription that takes it.
    ///
    /// - Parameter hops: through how many entities it came here.
    func publish(_ record: MessageRecord, _ topic: MessageQueue, hops: Int = 0) {
        let facts = MessageFacts(record)
        let end = topic.expiry(of: record, from: now)
        for subscription in topic.subscriptions {
            var isCopied = false
            for rule in subscription.compiledRules where facts.meets(rule) {
                // All rules without an action make one copy, each with an action makes its own.
                if let action = rule.action {
                    deliver(facts.applying(action), to: subscription, expiresBy: end, hops: hops)
                } else if !isCopied {
                    isCopied = true
                    deliver(record, to: subscription, expiresBy: end, hops: hops)
                }
            }
        }
    }

    /// Puts a topic's message into a subscription, or where that forwards to.
    private func deliver(_ record: MessageRecord, to subscription: MessageQueue, expiresBy end: Int64, hops: Int) {
        var record = record
        var target = subscription
        var hops = hops
        while let name = target.settings.forwardTo {
            hops += 1
            guard hops <= ServiceBusLimits.forwardingHops else {
                return subscription.bury(
                    record, reason: "MaxTransferHopCountExceeded",
                    "The message went through more than \(ServiceBusLimits.forwardingHops) entities.", inTransfer: true)
            }
            guard let next = queue(named: name), next.refusesSends == nil else {
                return subscription.bury(
                    record, reason: "MessagingEntityNotFound",
                    "'\(target.name)' forwards to '\(name)', which takes no messages.", inTransfer: true)
            }
            target = next
        }
        if target.settings.isTopic { return publish(record, target, hops: hops + 1) }
        if target.requiresSession, !record.hasSession {
            return subscription.bury(record, reason: "Session ID is null.", "The subscription requires sessions.")
        }
        put(&record, target, expiresBy: end)
    }
}

extension MessageQueue {
    /// Takes in a message as a dead letter right away.
    func bury(_ record: MessageRecord, reason: String, _ description: String, inTransfer: Bool = false) {
        var letter = record.adding([
            AMQPPair(string: "DeadLetterReason", .string(reason)),
            AMQPPair(string: "DeadLetterErrorDescription", .string(description)),
        ])
        letter.state = .active
        letter.enqueuedAt = broker.now
        letter.expiresAt = .max
        guard let sequence = (inTransfer ? transferDeadLetters : deadLetters)?.insert(&letter) else { return }
        broker.tellDeadLetter(sequence, of: self, reason: reason)
    }
}
