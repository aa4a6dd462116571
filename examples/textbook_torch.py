"""The textbook's first program as plain torch, with the layer of segue.nn in the place of torch's."""

import torch

from segue import nn

torch.manual_seed(0)
x, y = torch.randn(10, 20, 10), torch.randn(10, 1)
rnn, readout = nn.RNN(10, 50, batch_first=True), torch.nn.Linear(50, 1)
optimizer = torch.optim.Adam([*rnn.parameters(), *readout.parameters()], lr=0.01)
for epoch in range(100):
    outputs, _ = rnn(x)
    loss = torch.nn.functional.mse_loss(readout(outputs[:, -1]), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"squared error after {epoch + 1} epochs: {loss.item():.6f}")
