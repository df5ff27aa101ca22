/// Rules of subscriptions: how many there may be.
import AMQP
import Diagnostics
import EventLoops
import HostTestSupport
@testable import ServiceBus
import Testing

@Suite struct RuleTests {
    @Test func `a subscription has so many rules and not one more, and they outlive a restart`() async throws {
        try await onTheLoop {
            let folder = Folder()
            let name = Broker.subscriptionPath("t", "s")
            let rule = { (number: Int) in
                SubscriptionRule(name: "rule\(number)", filter: .sql("n = \(number)", parameters: [:]))
            }
            do {
                let broker = try Broker(folder: folder.path, log: .discarding)
                broker.createTopic("t", QueueSettings())
                var settings = QueueSettings()
                settings.rules = (2...ServiceBusLimits.ruleCount).map(rule)
                let subscription = broker.createQueue(name, settings)
                var written = 0
                let last = broker.put(rule(1), to: subscription) { written += $0 == nil ? 1 : 0 }
                #expect(last == nil)
                #expect(subscription.settings.rules.count == ServiceBusLimits.ruleCount)
                let refusal = broker.put(rule(0), to: subscription) { _ in }
                #expect(refusal?.condition == "amqp:resource-limit-exceeded")
                // Another in the place of one is none more.
                let other = broker.put(rule(7), to: subscription, replacing: true) { written += $0 == nil ? 1 : 0 }
                #expect(other == nil)
                await settled(broker)
                #expect(written == 2)
                broker.close()
            }
            let broker = try Broker(folder: folder.path, log: .discarding)
            #expect(broker.queue(named: name)?.settings.rules.count == ServiceBusLimits.ruleCount)
            broker.close()
        }
    }
}
