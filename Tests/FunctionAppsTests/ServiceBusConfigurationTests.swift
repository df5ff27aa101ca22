/// host.json `extensions.serviceBus`.
import ConfigurationFiles
import FunctionApps
import HostTestSupport
import Testing

@Suite struct ServiceBusConfigurationTests {
    private func load(_ section: String) -> (bus: ServiceBusConfiguration, problems: [ConfigurationProblem]) {
        let folder = TemporaryFolder()
        folder.write("host.json", #"{"version": "2.0", "extensions": {"serviceBus": \#(section)}}"#)
        let (configuration, problems) = HostConfiguration.load(folder: folder.path, environment: [:])
        return (configuration.serviceBus, problems)
    }

    @Test func `an empty section has the extension's defaults`() {
        let (bus, problems) = load("{}")
        #expect(bus == ServiceBusConfiguration() && problems.isEmpty)
        #expect(bus.prefetchCount == 0 && bus.autoCompleteMessages && bus.maxAutoLockRenewalDuration == .seconds(300))
        #expect(bus.maxConcurrentSessions == 8 && bus.maxConcurrentCallsPerSession == 1)
        #expect(bus.maxMessageBatchSize == 1000 && bus.minMessageBatchSize == 1 && bus.maxBatchWaitTime == .seconds(30))
        #expect(bus.sessionIdleTimeout == .seconds(60))
        let retry = bus.clientRetryOptions
        #expect(retry.isExponential && retry.tryTimeout == .seconds(60) && retry.delay == .milliseconds(800))
        #expect(retry.maxDelay == .seconds(60) && retry.maxRetries == 3)
    }

    @Test func `retry options are read, and tryTimeout is the idle time of sessions`() {
        let (bus, problems) = load(
            """
            {"clientRetryOptions": {"mode": "fixed", "tryTimeout": "00:00:07", "delay": "00:00:00.001",
             "maxDelay": "01:00:00", "maxRetries": 100}}
            """)
        #expect(problems.isEmpty)
        let retry = bus.clientRetryOptions
        #expect(!retry.isExponential && retry.tryTimeout == .seconds(7) && retry.delay == .milliseconds(1))
        #expect(retry.maxDelay == .seconds(3600) && retry.maxRetries == 100)
        #expect(bus.sessionIdleTimeout == .seconds(7))
    }

    @Test func `the sections of version 4 count where the new keys are missing`() {
        let (bus, problems) = load(
            """
            {"prefetchCount": 5, "messageHandlerOptions": {"autoComplete": false, "maxConcurrentCalls": 3,
             "maxAutoRenewDuration": "00:01:00"},
             "sessionHandlerOptions": {"maxConcurrentSessions": 2, "messageWaitTimeout": "00:00:09"},
             "batchOptions": {"maxMessageCount": 10, "operationTimeout": "00:01:00"},
             "transportType": "amqpWebSockets", "enableCrossEntityTransactions": true}
            """)
        #expect(problems.isEmpty)
        #expect(bus.prefetchCount == 5 && !bus.autoCompleteMessages && bus.maxConcurrentCalls == 3)
        #expect(bus.maxAutoLockRenewalDuration == .seconds(60) && bus.maxConcurrentSessions == 2)
        #expect(bus.sessionIdleTimeout == .seconds(9) && bus.maxMessageBatchSize == 10)
        let (both, _) = load(
            #"{"maxConcurrentCalls": 4, "messageHandlerOptions": {"maxConcurrentCalls": 3}, "autoCompleteMessages": true}"#
        )
        #expect(both.maxConcurrentCalls == 4 && both.autoCompleteMessages)
    }

    @Test func `a negative renewal time is for ever`() {
        #expect(load(#"{"maxAutoLockRenewalDuration": "-00:00:00.001"}"#).bus.maxAutoLockRenewalDuration == nil)
    }

    @Test(arguments: [
        (#"{"prefetchCount": -1}"#, "prefetchCount"), (#"{"maxConcurrentCalls": 0}"#, "maxConcurrentCalls"),
        (#"{"maxConcurrentSessions": 0}"#, "maxConcurrentSessions"),
        (#"{"maxConcurrentCallsPerSession": 0}"#, "maxConcurrentCallsPerSession"),
        (#"{"maxMessageBatchSize": 0}"#, "maxMessageBatchSize"),
        (#"{"maxBatchWaitTime": "00:02:31"}"#, "maxBatchWaitTime"),
        (#"{"minMessageBatchSize": 1001}"#, "minimum message batch size"),
        (#"{"sessionIdleTimeout": "00:00:00.001"}"#, "sessionIdleTimeout"),
        (#"{"clientRetryOptions": {"maxRetries": 101}}"#, "maxRetries"),
        (#"{"clientRetryOptions": {"mode": "Random"}}"#, "mode"),
        (#"{"clientRetryOptions": {"delay": "00:00:00"}}"#, "delay"),
        (#"{"clientRetryOptions": {"tryTimeout": "01:00:01"}}"#, "tryTimeout"),
        (#"{"clientRetryOptions": {"tries": 1}}"#, "tries"),
        (#"{"messageHandlerOptions": {"autocomplet": 1}}"#, "autocomplet"),
    ]) func `what is past a limit is shown`(section: String, name: String) {
        let problems = load(section).problems
        #expect(problems.count == 1 && problems[0].text.contains(name))
    }
}
